"""What is asked of a pull of an image; no behaviour."""

__all__ = ["ImageRequest"]

from dataclasses import dataclass
from uuid import UUID

from cas.agent.program import Launch
from cas.datastores.settings import SourceSettings
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Platform
from cas.model.progress import Progress
from cas.model.reference import ImageReference
from cas.model.signature_policy import Rule


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to pull.

    Args:
        reference: Where it is.
        source: The registry, with everything that opens it.
        rule: What the signature policy asks of it.
        name: Name of the image in the store.
        platform: What it shall run on.
        image: UUID for its files on the way; None takes one made from the reference.
        cancel: Stops the work.
        progress: Told of every step.
        launch: Gives the processes of the agents.
    """

    reference: ImageReference
    source: SourceSettings
    rule: Rule
    name: str
    platform: Platform
    image: UUID | None
    cancel: Cancellation
    progress: Progress
    launch: Launch
