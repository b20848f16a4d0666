"""``python -m cas.verifier``: started by :class:`cas.verifier.verifier.Verifier` only."""

from cas.verifier.agent import main

if __name__ == "__main__":
    main()
