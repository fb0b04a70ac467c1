# docker build -f docker/cuda.Dockerfile -t reasoning-embedding:cuda .
# docker run --rm --gpus all --ipc host -v "$PWD:/data" reasoning-embedding:cuda train run.yaml
# torch's wheels bring the CUDA libraries; the base brings the toolkit, with which DeepSpeed builds its optimisers.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o ubuntu /data
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY configs configs
COPY docs/schema docs/schema
COPY reasoning_embedding reasoning_embedding
RUN python3 -m venv /venv \
 && /venv/bin/pip install --no-cache-dir -c constraints.txt ".[deepspeed,eval,lineage,merge,mining,report,tracking]"
ENV PATH=/venv/bin:$PATH
# The user that the base has, with id 1000.
USER ubuntu
WORKDIR /data
ENTRYPOINT ["rembed"]
CMD ["--help"]
