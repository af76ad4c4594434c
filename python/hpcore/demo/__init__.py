"""`hpcore demo`: an undisturbed run, the same run through faults and a resize, and what the
difference was.
"""
