"""``lorascope serve``: show studies in a browser."""

import contextlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lorascope.cli.program_output import program_output
from lorascope.web.sockets import HOST, PORT


def serve(
    folder: Path,
    /,
    *,
    host: str = HOST,
    port: int = PORT,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    open: Annotated[bool, Parameter(negative="", show_default=False)] = False,  # noqa: A002  # the name of the flag
) -> int:
    """Show a study in the browser while it runs and afterwards, or all studies of a folder.

    Writes nothing and does not slow down a running study.

    Parameters
    ----------
    folder
        Folder of a study, or a folder that holds studies.
    host
        Address to listen on. Unless it is a loopback address, visitors need the token in the printed address.
    port
        Port to listen on; 0 takes any free port.
    json
        Write the address as a JSON object on one line.
    open
        Open the page in the browser.
    """
    import webbrowser

    from lorascope.web.server import serve as serve_page
    from lorascope.web.sockets import address, listen, make_token
    from lorascope.web.studies import check_root

    check_root(folder)
    with program_output(alone=json) as out:
        listener, token = listen(host, port), make_token(host)
        shown = address(listener, host, token)
        if json:
            from lorascope.cli.outputs import ServeOutput

            print(ServeOutput(url=shown).model_dump_json(), file=out, flush=True)
        else:
            print(f"{shown}  (Ctrl-C stops it)", file=out, flush=True)
        if open:
            webbrowser.open(shown)
        with contextlib.suppress(KeyboardInterrupt):
            serve_page(listener, folder, host=host, token=token)
    return 0
