"""The demo's report: one HTML file that opens offline. charts.py draws SVG, page.py fills
page.html.
"""
