"""``python -m cas.downloader``: started by :class:`cas.downloader.downloader.Downloader` only."""

from cas.downloader.agent import main

if __name__ == "__main__":
    main()
