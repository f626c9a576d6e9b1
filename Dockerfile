# The image of the service: a small Debian with one binary that links only libc and libgcc.
#
#   docker build --build-arg ZIM2KAFKA_REVISION="$(git rev-parse --short=12 HEAD)" --tag zim2kafka .
#
# Completions and the manual page for the machine of an operator:
#
#   docker run --rm zim2kafka completions bash >~/.local/share/bash-completion/completions/zim2kafka
#   docker run --rm zim2kafka man | man --local-file -
#
# No `# syntax` line and no cache mounts, so that both the classic builder and BuildKit build this
# file.

FROM rust:1.95.0-bookworm AS build
WORKDIR /build

# The dependencies, with librdkafka and OpenSSL in C, take minutes to build and rarely change, so
# they are a layer that only the two Cargo files invalidate. The placeholder sources are newer than
# the real ones from COPY; without `cargo clean`, cargo would treat what it built from them as
# fresh.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches/callback \
 && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs benches/callback/main.rs > src/lib.rs \
 && cargo build --profile dist --locked \
 && cargo clean --profile dist --locked --package zim2kafka \
 && rm -r src

COPY build.rs ./
COPY schemas schemas
COPY src src
ARG ZIM2KAFKA_REVISION
RUN cargo build --profile dist --locked

# The moving tag is intended: a rebuild picks up Debian's fixes of libc.
FROM debian:bookworm-slim

# For brokers with certificates of a public authority; the base image has none of the authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/

# Numeric, because Kubernetes' runAsNonRoot cannot check a name. A new volume that is mounted on the
# folder takes over its owner.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/zim2kafka
USER 10001:10001

COPY --from=build /build/target/dist/zim2kafka /usr/local/bin/

# Mount a volume here: the spool holds events that were answered 2xx and that Kafka may not have
# yet.
ENV ZIM2KAFKA_SPOOL_DIR=/var/lib/zim2kafka

# The loopback interface of a container is not reachable from outside. Restrict this port by the
# network.
ENV ZIM2KAFKA_ADMIN_LISTEN=0.0.0.0:9464
EXPOSE 8080 9464

HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["zim2kafka", "healthcheck"]
ENTRYPOINT ["zim2kafka"]
CMD ["serve"]

# Last, so that another revision shares all unchanged layers above.
ARG ZIM2KAFKA_VERSION
ARG ZIM2KAFKA_REVISION
LABEL org.opencontainers.image.title="zim2kafka" \
      org.opencontainers.image.description="Publishes the callbacks of ZEGOCLOUD In-app Chat to Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${ZIM2KAFKA_VERSION}" \
      org.opencontainers.image.revision="${ZIM2KAFKA_REVISION}"
