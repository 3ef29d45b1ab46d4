"""Tests with real Ray. The nox session `scale` runs them; without ray they are not collected."""
