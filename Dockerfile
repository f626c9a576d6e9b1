# The image of the service: a small Debian with one binary that links nothing but libc and libgcc.
#
#   docker build --build-arg ZIM2KAFKA_REVISION="$(git rev-parse --short=12 HEAD)" --tag zim2kafka .
#
# No `# syntax` line and no cache mounts: the classic builder and BuildKit both build this file.

FROM rust:1.95.0-bookworm AS build
WORKDIR /build

# The dependencies, with librdkafka and OpenSSL in C, take minutes and change seldom, so they are a layer that only the
# two Cargo files can invalidate. The stand-in sources are younger than the real ones that COPY brings; without
# `cargo clean` cargo would take what it built from them for fresh.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches/callback \
 && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs benches/callback/main.rs > src/lib.rs \
 && cargo build --release --locked \
 && cargo clean --release --locked --package zim2kafka \
 && rm -r src

COPY build.rs ./
COPY src src
ARG ZIM2KAFKA_REVISION
RUN cargo build --release --locked

# The moving tag is meant: a rebuild takes in Debian's fixes of libc.
FROM debian:bookworm-slim

# For brokers whose certificates a public authority signed; this base brings no authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/

# Numeric, because Kubernetes' runAsNonRoot can't judge a name. A new volume mounted on the folder takes over its owner.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/zim2kafka
USER 10001:10001

COPY --from=build /build/target/release/zim2kafka /usr/local/bin/

# Put a volume there: what is in it has been answered, and Kafka may not have it yet.
ENV ZIM2KAFKA_SPOOL_DIR=/var/lib/zim2kafka

# Inside a container the loopback interface is reachable by nobody; who may reach this port is the network's decision.
ENV ZIM2KAFKA_ADMIN_LISTEN=0.0.0.0:9464
EXPOSE 8080 9464

HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["zim2kafka", "healthcheck"]
ENTRYPOINT ["zim2kafka"]
CMD ["serve"]

# Last, so that another revision shares every layer above that did not change.
ARG ZIM2KAFKA_VERSION
ARG ZIM2KAFKA_REVISION
LABEL org.opencontainers.image.title="zim2kafka" \
      org.opencontainers.image.description="Publishes the group-joined callbacks of ZEGOCLOUD In-app Chat to Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${ZIM2KAFKA_VERSION}" \
      org.opencontainers.image.revision="${ZIM2KAFKA_REVISION}"
