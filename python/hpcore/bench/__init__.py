"""`hpcore bench`: one frame for all measurements (result.py), one module a bench."""
