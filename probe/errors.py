"""What the probe raises deliberately."""


class NoRoomError(Exception):
    """There was too little memory; the message is one sentence."""
