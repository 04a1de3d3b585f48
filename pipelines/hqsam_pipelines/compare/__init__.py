"""Two revisions compared: how much better or worse, and is it noise?"""
