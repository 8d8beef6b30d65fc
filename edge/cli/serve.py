"""The command `mmtl serve`: sound of other programs and browsers, and the web page."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.options import BundleFolder, ChannelName, MetricsAddress, ProfileName, Provider, Step
from edge.cli.targets import served_metrics


def serve(
    tcp: Annotated[
        str | None, typer.Option("--tcp", metavar="[HOST:]PORT", help="Accept raw sound over TCP.")
    ] = None,
    websocket: Annotated[
        str | None,
        typer.Option("--websocket", metavar="[HOST:]PORT", help="Accept raw sound over WebSocket."),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            "--web",
            metavar="[HOST:]PORT",
            help="Serve a web page that shows what this device's microphone, or the browser's, hears.",
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option("--source", help="This device's source on the page: mic, mic:NAME, a file or demo."),
    ] = "mic",
    bundle: BundleFolder = None,
    profile: ProfileName = None,
    provider: Provider = "auto",
    step_ms: Step = 240,
    channel: ChannelName = "auto",
    clients: Annotated[
        int, typer.Option("--clients", help="Maximum number of clients at a time.", min=1)
    ] = 16,
    client_profiles: Annotated[
        bool,
        typer.Option(
            "--client-profiles",
            help="Let clients choose a profile kept on this device; --web implies it.",
        ),
    ] = False,
    idle_s: Annotated[
        float,
        typer.Option(
            "--idle-s", help="Disconnect a client after this many seconds without sound.", min=1, max=86_400
        ),
    ] = 30.0,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Require every client to send the token in this file.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow clients on other machines without a token.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate chain (PEM): encrypt all connections.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="Private key of the certificate (PEM).")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", help="Let web pages of this origin connect; may be repeated."),
    ] = None,
    metrics: MetricsAddress = None,
) -> None:
    """Recognise sound from TCP, WebSocket or a web page, for this machine only unless HOST is given.

    TCP and WebSocket clients send s16le. One whose sound is not 16 kHz mono first sends
    {"rate": HZ, "channels": N}, or connects to /?rate=HZ&channels=N. It receives the events as JSON.
    With --client-profiles a client may first send {"profile": "NAME"}. With --token-file it must first send
    {"token": "..."}, or connect to /?token=..., or send the header "Authorization: Bearer ...".
    Beyond this machine the page requires a token too, which is made if no file has one. The link with the
    token is shown; in a terminal also as a QR code. Ctrl-C ends the server.
    """
    from edge.audio.downmix import parse_channel
    from edge.model.bundle import find_bundle, load_bundle
    from edge.model.profile import find_profile, load_profile
    from edge.output.sinks import Sink, say
    from edge.recognition.settings import Settings
    from edge.server.access import caution, load_access, parse_address, require_protected, with_token
    from edge.server.client_session import Service
    from edge.server.client_stream import kept_for_clients, shared_engines
    from edge.server.rate_limits import Limits
    from edge.server.server import serve as serve_clients

    addresses = {"tcp": tcp, "websocket": websocket}
    listen = {kind: parse_address(text) for kind, text in addresses.items() if text is not None}
    page = parse_address(web) if web is not None else None
    access = load_access(token_file=token_file, certificate=tls_cert, key=tls_key, origins=origin or ())
    require_protected(listen.values(), access, insecure=insecure)
    if page and not insecure:
        access = with_token(page, access)
    with served_metrics(metrics) as measured, contextlib.ExitStack() as stack:
        model = load_bundle(find_bundle(bundle))
        speaker = load_profile(find_profile(profile), model) if profile else None
        settings = Settings(step_ms=step_ms, channel=parse_channel(channel))
        make = shared_engines(model, profile=speaker, settings=settings, provider=provider)
        engine = stack.enter_context(contextlib.closing(make().engine))
        service = Service(
            make,
            find=kept_for_clients(model) if client_profiles or page else None,
            limits=Limits(connections=clients, idle_s=idle_s),
            access=access,
            observe=measured.stream if measured else Sink,
        )
        site = None
        if page:
            from edge.web.start import open_site, show_link

            site = stack.enter_context(contextlib.closing(open_site(page, service, source, model)))

        def ready(ports: dict[str, int]) -> None:
            if provider == "auto":
                say(f"runs on {engine.provider}: {engine.reason}")
            if measured:
                measured.set_ready()
            if warning := caution([*listen.values(), *([page] if page else [])], access):
                say(warning)
            if page:
                opened = replace(page, port=ports["web"])
                show_link(opened, access, say, generated=token_file is None)

        serve_clients(service, **listen, web=site, say=say, ready=ready)
