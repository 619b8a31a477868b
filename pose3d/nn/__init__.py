"""From images to keypoint candidates: the network, how it is trained and what it predicts. PyTorch lives here."""

__all__: list[str] = []
