"""Wire formats: pure functions and decoders. No I/O, no clock, no environment, no asyncio."""
