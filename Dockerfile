# docker build -t zoo .
# docker run --rm zoo train model=kmeans
#
# The plain index has torch with CUDA's libraries; --build-arg PIP_EXTRA_INDEX_URL=... names an index that has it for a CPU alone.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY zoo zoo
COPY configs configs
COPY hydra_plugins hydra_plugins
RUN python -m venv /opt/zoo && /opt/zoo/bin/pip install --no-cache-dir .

FROM python:3.13-slim
RUN useradd --create-home zoo
COPY --from=build /opt/zoo /opt/zoo
ENV PATH="/opt/zoo/bin:$PATH"
USER zoo
WORKDIR /home/zoo
ENTRYPOINT ["zoo"]
CMD ["--help"]
