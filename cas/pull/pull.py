"""Pulling images and files: the use cases that a program calls."""

__all__ = ["Pull"]

from pathlib import Path
from uuid import UUID

from cas.agent.program import Launch, launch_agent
from cas.datastores.settings import Credentials
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Platform
from cas.model.digest import Digest
from cas.model.policy_name import policy_name
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import PulledImage
from cas.model.reference import ImageReference, check_image_name
from cas.model.settings import Settings
from cas.model.signature_policy import OPEN_POLICY, Rule
from cas.pull.file_pull import FilePull, FileRequest
from cas.pull.image_pull import ImagePull
from cas.pull.image_request import ImageRequest
from cas.pull.leftovers import sweep_transfers
from cas.pull.policy_file import load_policy
from cas.pull.signature_check import require_allowed
from cas.pull.sources import file_uuid, registry_settings, url_settings
from cas.store.backing import Backing
from cas.store.content.intake import Ingested
from cas.store.directories import require_directories
from cas.store.image.images import Images


class Pull:
    """Brings content from where it is published into one store; may be shared by threads.

    Every call starts agents of its own, which end with it. The thread that makes it has to stay
    until it is done.

    Args:
        backing: The store.
        settings: Of the agents and of downloads.
        images: The store's images.
    """

    def __init__(self, backing: Backing, settings: Settings, images: Images) -> None:
        self._settings = settings
        self._images = images
        self._backing = backing
        self._layout = backing.layout
        self._image_pull = ImagePull(backing, settings, images)
        self._file_pull = FilePull(backing, settings)

    def image(
        self,
        reference: str,
        *,
        name: str | None = None,
        platform: Platform | None = None,
        image: UUID | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
        launch: Launch = launch_agent,
    ) -> PulledImage:
        """Pull an image for one platform from its registry.

        Every blob is downloaded, verified and ingested, unless the store has it; then the name is
        set. On return all that is durable. After a failure no name has changed; what came is gone
        on with by the next call, also after a kill or a reboot. Idempotent; two calls for the same
        blobs share the work. Blocks.

        Args:
            reference: In docker's form: ``[registry/]repository[:tag][@digest]``.
            name: Of the image in the store; None takes the reference in canonical form.
            platform: What it shall run on; None: this machine.
            image: UUID for its files on the way; None takes one made from the reference.
            cancel: Stops the work.
            progress: Told of every step.
            launch: Gives the processes of the agents; see :mod:`cas.pull.early_agents`.

        Raises:
            InvalidNameError: It is no reference, or no image can have the name.
            SourceNotFoundError: The registry has no such image.
            PlatformNotFoundError: The image has nothing for the platform.
            SignatureError: It is not signed as the policy wants it.
            DigestMismatchError: The registry gave wrong bytes, as often as allowed.
            MalformedDocumentError: A document is not valid.
            AuthenticationError: The registry refuses the credentials, or wants some.
            SourceUnavailableError: It does not answer, or breaks off.
            ConfinementError: An agent cannot be confined as it must.
            AgentError: An agent ended early.
            LayoutError: A directory of the agents is not as the layout wants it.
            ConfigError: A file of the configuration is wrong.
            NoSpaceError: There is too little room.
            InterruptedOperationError: ``cancel`` was set.
        """
        parsed = ImageReference.parse(reference)
        self._require_writable()
        return self._image_pull.run(
            ImageRequest(
                reference=parsed,
                source=registry_settings(self._settings.download, parsed.domain),
                rule=self._rule(parsed),
                name=str(parsed) if name is None else check_image_name(name),
                platform=platform or self._images.platform,
                image=image,
                cancel=cancel or Cancellation(),
                progress=progress,
                launch=launch,
            )
        )

    def file(
        self,
        url: str,
        digest: Digest,
        *,
        size: int | None = None,
        media_type: str | None = None,
        credentials: Credentials | None = None,
        image: UUID | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Ingested:
        """Pull a single file, which becomes a pinned blob; otherwise as :meth:`image`.

        Args:
            url: Where it is, of any kind of datastore. Where the policy asks for a detached
                signature, that is beside it, with ``.sig`` after its name.
            digest: That it must have.
            size: Bytes it must have; None asks the datastore.
            media_type: Remembered with the blob.
            credentials: For the datastore.
            image: UUID for the file on its way; None takes one made from the URL.
            cancel: Stops the work.
            progress: Told of every step.
        """
        source, path = url_settings(self._settings.download, url, credentials)
        self._require_writable()
        return self._file_pull.run(
            FileRequest(
                source=source,
                path=path,
                digest=digest,
                size=size,
                media_type=media_type,
                rule=self._rule(url),
                image=image or file_uuid(url),
                cancel=cancel or Cancellation(),
                progress=progress,
            )
        )

    def sweep(self) -> list[Path]:
        """Remove what interrupted transfers left and two recoveries have met; see there."""
        self._backing.check_writable()
        return sweep_transfers(self._layout)

    def _rule(self, source: ImageReference | str) -> Rule:
        path = self._settings.download.signature_policy
        if path is None:
            return OPEN_POLICY.rule_for("")
        name = policy_name(source)
        rule = load_policy(path).rule_for(name)
        require_allowed(rule, name)
        return rule

    def _require_writable(self) -> None:
        self._backing.check_writable()
        layout = self._layout
        directories = (layout.downloader, layout.verifier, layout.pending, layout.verified)
        require_directories(self._settings, directories)
