"""What the probe raises on purpose."""


class NoRoomError(Exception):
    """Memory was too little, said in one sentence."""
