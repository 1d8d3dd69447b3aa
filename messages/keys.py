"""Names and codes that both ends of a message know."""

REFUSED = 1001  # error code of a client's reply when asking it again would change nothing; Flower's end below 1000
SITES = "sites"  # in a train message's config: ids of nodes with folders of their own, as text, in partition order
