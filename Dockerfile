# syntax=docker/dockerfile:1
# One image with both programs: `gateway` (the default; also migrations and the operator's commands) and `worker`.

FROM rust:1.95-bookworm AS build
# The toolchain of the image, without the components that rust-toolchain.toml wants for development.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release -p gateway -p worker \
    && install -D -t /out target/release/gateway target/release/worker

FROM debian:bookworm-slim
# curl is for the health checks.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --create-home --shell /usr/sbin/nologin frontdesk \
    && install -d -o frontdesk /var/spool/frontdesk
COPY --from=build /out/gateway /out/worker /usr/local/bin/
COPY agents.toml /etc/frontdesk/agents.toml
USER frontdesk
WORKDIR /data
ENV FRONTDESK_LISTEN=0.0.0.0:8080 \
    FRONTDESK_METRICS_LISTEN=0.0.0.0:9090 \
    FRONTDESK_WORKER_METRICS_LISTEN=0.0.0.0:9091 \
    FRONTDESK_SPOOL_DIR=/var/spool/frontdesk \
    FRONTDESK_LOG_FORMAT=json
EXPOSE 8080 9090 9091
CMD ["gateway", "serve"]
