# eve-cas with the containerd it owns. The container needs to mount (CAP_SYS_ADMIN), and the persist
# directory at the same path as on the host, so that mounts which containerd describes exist there:
#
#   docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined \
#     -v /persist:/persist:rslave -v /run/containerd-user:/run/containerd-user eve-cas
#
# Before the first time, the same with "layout init" at the end makes the directories.

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv
WORKDIR /src
COPY pyproject.toml generate_stubs.py LICENSE *.md ./
COPY protos protos
COPY cas cas
RUN python3 -m venv /opt/cas \
 && /opt/cas/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && /opt/cas/bin/pip install --no-cache-dir /wheel/*.whl \
 && /opt/cas/bin/pip uninstall --yes setuptools pip

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends containerd isal pigz python3 qemu-utils \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /usr/bin/containerd-shim* # nothing runs in a store
# Owners of the layout; their numbers are on disk, so every build of the image must agree on them.
RUN groupadd --system --gid 950 volumemgr \
 && useradd --system --no-create-home --shell /usr/sbin/nologin --uid 951 --user-group cas-downloader \
 && useradd --system --no-create-home --shell /usr/sbin/nologin --uid 952 --user-group cas-verifier
COPY --from=build /opt/cas /opt/cas
ENV PATH=/opt/cas/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# "cas version" alone is no failure without a containerd.
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s CMD cas version --json \
  | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["containerd"] is None)'
ENTRYPOINT ["cas"]
CMD ["containerd", "run"]
