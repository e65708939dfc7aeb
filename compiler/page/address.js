// The address keeps what is looked at (`#stage=4k&zoom=4&at=0.5`), so that a view can be linked to.
const address = {
  waiting: null, // browsers refuse an address that changes with every turn of the wheel
  values: {},
  get: (key) => new URLSearchParams(location.hash.slice(1)).get(key),
  set(values) {
    Object.assign(address.values, values);
    if (address.waiting) return;
    address.write();
    address.waiting = setTimeout(() => { address.waiting = null; address.write(); }, 250);
  },
  write() {
    const all = new URLSearchParams(location.hash.slice(1));
    for (const [key, value] of Object.entries(address.values)) {
      if (value === null) all.delete(key); else all.set(key, value);
    }
    address.values = {};
    const next = all.size ? "#" + all : location.pathname + location.search;
    try { history.replaceState(null, "", next); } catch { /* some browsers refuse this for a file: no link, then */ }
  },
};

