"""The HTTP server: aiohttp routes over the engine and the protocols."""
