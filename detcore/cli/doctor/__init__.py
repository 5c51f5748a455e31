"""``detcore doctor``: what is installed, and whether it works.

:mod:`.probe` loads entry points, in processes that may crash or hang; :mod:`.supervisor` starts these and tells how
they ended; :mod:`.report` puts everything together; :mod:`.command` prints it.
"""
