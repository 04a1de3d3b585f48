# The image of a worker, a Ray node or a Prefect server: targets `cpu` and `cuda` (docs/operations.md, "Containers").
#
# It holds packages, no data and no secret: the clone is mounted, passwords and keys come by the environment. .dockerignore lets only the
# sources below in. Every package comes by its digest from requirements.lock, but torch and torchvision, whose build depends on the index.

FROM python:3.11-bookworm AS packages
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY constraints.txt requirements.lock ./
RUN python -m venv /opt/venv
RUN sed '/^torch\(vision\)\{0,1\}==/,+1d' requirements.lock > others.lock \
 && pip install --no-cache-dir --require-hashes --no-deps -r others.lock
COPY LICENSE README.md pyproject.toml ./
COPY hqsam hqsam
COPY datasets datasets
COPY metrics metrics
COPY pipelines pipelines
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# --build-arg TORCH_INDEX=...: the address of an index with torch's CPU builds; without it the usual one's, which may be a CUDA build
FROM packages AS packages-cpu
ARG TORCH_INDEX=
RUN pip install --no-cache-dir --no-deps ${TORCH_INDEX:+--index-url="$TORCH_INDEX"} -c constraints.txt torch torchvision

# with the libraries of NVIDIA that torch names; of the machine itself only the driver is needed, which NVIDIA's container toolkit brings in
FROM packages AS packages-cuda
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url="$TORCH_INDEX"} -c constraints.txt torch torchvision

FROM python:3.11-slim-bookworm AS run
# No versions: Debian keeps only the newest of a release, which has the security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 hqsam
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
USER 1000
WORKDIR /home/hqsam
CMD ["hqsam", "--help"]

FROM run AS cpu
COPY --from=packages-cpu /opt/venv /opt/venv

FROM run AS cuda
COPY --from=packages-cuda /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
