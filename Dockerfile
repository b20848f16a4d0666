# eve-cas with the containerd it owns. The container needs to mount (CAP_SYS_ADMIN), and the persist
# directory at the same path as on the host, so that mounts which containerd describes exist there:
#
#   docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined \
#     -v /persist:/persist:rslave -v /run/containerd-user:/run/containerd-user eve-cas

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
 && apt-get install -y --no-install-recommends containerd isal pigz python3 \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /usr/bin/containerd-shim* # nothing runs in a store
COPY --from=build /opt/cas /opt/cas
ENV PATH=/opt/cas/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s CMD ["cas", "version"]
ENTRYPOINT ["cas", "containerd", "run"]
