// The smallest probe that does what every probe does: it reads a list, opens a case, waits on a watch and concludes.
//
// `probe.toml` beside it declares the two cases, so they can be shown before anything runs, and none can be left out.

import { Query } from "karat:probe/kube-read@0.1.0-dev.1";
import { events, inCase, objects, run } from "./karat-probe.js";

// Seconds that a watch may take to deliver what is there.
const SYNC = 20;

function namespaces() {
  const query = new Query("v1", "namespaces");
  query.keep(["/status/phase"]);
  return query;
}

function check() {
  inCase("namespaces", "", (open) => {
    const found = objects(namespaces());
    open.observe("namespaces", found.length);
    const system = found.find((object) => object.metadata.name === "kube-system");
    if (system === undefined) {
      open.failed("there is no namespace kube-system");
      return;
    }
    open.observe("uid of kube-system", system.metadata.uid);
    open.passed();
  });

  inCase("watch", "", (open) => {
    const watch = namespaces().openWatch();
    let seen = false;
    for (const { kind, object } of events(watch, SYNC, "the end of what is there")) {
      if (kind === "added" && object.metadata.name === "kube-system") {
        open.observe("uid of kube-system", object.metadata.uid);
        seen = true;
      }
      if (kind === "synced") {
        break;
      }
    }
    watch.close();
    if (seen) {
      open.passed();
    } else {
      open.failed("the watch did not deliver kube-system");
    }
  });
}

export const guest = {
  check() {
    run(check);
  },
};
