"""Figures and the self-contained HTML report. Renders records, computes nothing."""
