"""Key pairs with which SuperNodes prove who they are: P-384 in OpenSSH's format, as Flower 1.41 reads them.

The same as ``ssh-keygen -t ecdsa -b 384 -N "" -f node.key`` makes.
"""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def new_key_pair(name: str) -> tuple[bytes, bytes]:
    """The private key's file, and the public key's, which ends in `name` as its comment."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public + f" {name}\n".encode()
