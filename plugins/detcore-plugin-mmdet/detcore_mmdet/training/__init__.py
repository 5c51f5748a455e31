"""How an MMDetection configuration trains, as an experiment of detcore."""
