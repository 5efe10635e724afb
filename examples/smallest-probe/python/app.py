"""The smallest probe that does what every probe does: it reads a list, opens a case, waits on a watch and concludes.

`probe.toml` beside it declares the two cases, so they can be shown before anything runs, and none can be left out.
"""

from karat_probe import Case, events, objects, run
from wit_world import exports
from wit_world.imports import kube_read

#: Seconds that a watch may take to deliver what is there.
SYNC = 20


def namespaces() -> kube_read.Query:
    query = kube_read.Query("v1", "namespaces")
    query.keep(["/status/phase"])
    return query


def check() -> None:
    with Case("namespaces") as case:
        found = objects(namespaces())
        case.observe("namespaces", len(found))
        system = next((o for o in found if o["metadata"]["name"] == "kube-system"), None)
        if system is None:
            case.failed("there is no namespace kube-system")
        else:
            case.observe("uid of kube-system", system["metadata"]["uid"])
            case.passed()

    with Case("watch") as case:
        watch = namespaces().open_watch()
        seen = False
        for kind, news in events(watch, SYNC, "the end of what is there"):
            if kind == "added" and news["metadata"]["name"] == "kube-system":
                case.observe("uid of kube-system", news["metadata"]["uid"])
                seen = True
            if kind == "synced":
                break
        watch.close()
        if seen:
            case.passed()
        else:
            case.failed("the watch did not deliver kube-system")


class Guest(exports.Guest):
    def check(self) -> None:
        run(check)
