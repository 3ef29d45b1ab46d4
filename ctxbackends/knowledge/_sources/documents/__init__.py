"""Documents of other programs, converted to text with places. Only PDF needs a library, of the extra ``documents``."""
