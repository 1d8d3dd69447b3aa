"""Co-teaching (Han et al., NeurIPS 2018) on the server: two networks, each averaged by itself.

Both are arrays of one model (`task.Networks`), so that every strategy that works number by number keeps them apart.
"""

from typing import ClassVar

from server_app.methods.server_half import ServerHalf


class CoTeaching(ServerHalf):
    networks: ClassVar[int] = 2
