"""The server of a run: roll call, rounds, strategies, callbacks. The ServerApp is in `server_app.start`."""
