"""``detcore new-plugin``: a complete distribution to start from.

:mod:`.plan` decides on names and what the component is made from, :mod:`.files` writes everything, :mod:`.examples` has
the tests of each kind; ``templates/`` holds the texts.
"""
