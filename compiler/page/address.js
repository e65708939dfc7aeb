// The address keeps what is looked at (`#stage=4k&zoom=4&at=0.5`), so that a view can be linked to.
const address = {
  get: (key) => new URLSearchParams(location.hash.slice(1)).get(key),
  set(values) {
    const all = new URLSearchParams(location.hash.slice(1));
    for (const [key, value] of Object.entries(values)) {
      if (value === null) all.delete(key); else all.set(key, value);
    }
    const hash = all.size ? "#" + all : location.pathname + location.search;
    try { history.replaceState(null, "", hash); } catch { /* a browser may refuse this for a file */ }
  },
};

