"""The link layer: pairs with the neighbour."""
