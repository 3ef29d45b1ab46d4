"""HTTP over aiohttp. Nothing else imports aiohttp, except test servers."""
