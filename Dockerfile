# The whole image is one static binary and the certificates of public authorities: no shell, no libc, no user but its own.
#
#   docker build -t enlist:local .
#   docker run --rm -v "$PWD/enlist.toml:/etc/enlist/enlist.toml:ro" -p 127.0.0.1:8088:8088 enlist:local

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Static against glibc: names are still resolved in the image (tried), and its allocator is not musl's.
# With --target, so that build scripts and macros are built as this image needs them.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_STRIP=symbols

# Dependencies first, against an empty crate: a layer that only Cargo.lock makes anew.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && rm -r src

COPY schemas schemas
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && mkdir -p /out/state \
    && cp "target/$(rustc --print host-tuple)/release/enlist" /out/enlist

FROM scratch
LABEL org.opencontainers.image.title="enlist" \
      org.opencontainers.image.description="Provisions workers on command from NATS JetStream and enlists them with a scheduler" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/enlist /enlist
# A volume that is mounted here takes over this owner.
COPY --from=build --chown=65532:65532 /out/state /var/lib/enlist
USER 65532:65532
# Where enlist.toml is looked for: a file that is named and missing would stop the verbs that need none.
WORKDIR /etc/enlist
ENV ENLIST_HTTP_LISTEN=0.0.0.0:8088 \
    ENLIST_STATE_DIR=/var/lib/enlist
EXPOSE 8088
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=15s --retries=3 CMD ["/enlist", "healthcheck"]
ENTRYPOINT ["/enlist"]
CMD ["run"]
