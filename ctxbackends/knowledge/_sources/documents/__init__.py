"""Documents of other programs as text with places. Only PDF needs a library (`documents`)."""
