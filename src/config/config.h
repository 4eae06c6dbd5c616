/*
 * The configuration of a server, as plain C data: read once from the validated
 * script, then immutable and shared by all threads.
 */
#pragma once

#include "base/log.h"
#include "conn/conn.h"
#include "http/http.h"
#include "hub/policy.h"
#include "net/networks.h"
#include "vm/vm.h"

#include <lua.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum listener_kind { LISTENER_TCP, LISTENER_UNIX, LISTENER_UDP };

/* Does a connection begin with a PROXY header? */
enum proxy_use { PROXY_OFF, PROXY_ON, PROXY_IF_THERE };

/* What becomes of connections when a new generation comes. */
enum reload_policy {
	RELOAD_PIN,           /* they keep theirs */
	RELOAD_MIGRATE,       /* their agents hand over to new ones */
	RELOAD_DRAIN,         /* they are ended, spread over timeout.drain */
	RELOAD_AS_CONFIGURED, /* of a reload, not of a listener: what the script says */
};

/* "pin", "migrate", "drain", NULL; by enum reload_policy. */
extern const char *const RELOAD_POLICY_NAMES[];

/* False: no policy has that name. */
bool reload_policy_of(const char *name, enum reload_policy *policy);
enum { LISTENER_NO_SLOT = UINT16_MAX };

struct tls_settings;

struct listener_config {
	/* The number that the process has for it, while its place may change from one configuration to the next
	 * (server/listeners.h); LISTENER_NO_SLOT: none yet. Set before the workers see it. */
	uint16_t slot;
	uint16_t port; /* TCP, UDP; 0 lets the system choose */
	char *name;    /* for logs: what the user called it, or its address */
	char *address; /* as written: "tcp://127.0.0.1:9000" */
	char *framing; /* as `check --print` shows it */
	enum listener_kind kind;
	char *host; /* TCP, UDP; "" is every address */
	char *path; /* Unix */
	int mode;   /* Unix: permissions; -1: as the umask says */
	int backlog;
	struct conn_rules rules;
	uint32_t connections; /* at most so many at once */
	uint32_t per_ip;      /* 0: no limit */
	double accept_rate;   /* a second; 0: no limit */
	enum proxy_use proxy;
	struct networks trust;  /* whose PROXY headers are taken */
	unsigned sockets;       /* UDP: one for each worker */
	uint32_t amplification; /* UDP: bytes sent for each that came, until the peer answers; 0: no limit */
	char *reject;           /* told to whom is refused, or NULL */
	size_t reject_bytes;
	enum reload_policy policy; /* of connections that an older generation has */
	struct vm_budget budget;   /* of each call of a handler */
	uint32_t proceed_ms;       /* of each call as well, its waits included; 0: any */
	uint32_t mailbox;          /* messages that may wait for a name */
	uint32_t keepalive_ms;     /* 0: off */
	bool is_http;              /* http://, https://, ws://, wss://, or `protocol` says so */
	bool is_websocket;         /* ... of which ws://, wss:// */
	uint32_t message_bytes;    /* WebSocket: of a message */
	uint32_t ping_ms, pong_ms; /* ... silence after which the client is asked, and given up; 0: never */
	bool nodelay;
	bool reuse_port;          /* other processes may listen at the same address */
	struct tls_settings *tls; /* of tls:// and https://; else NULL */
	struct http_limits http;
};

/* A setting from outside of the script, weakest first. */
struct override {
	char *path; /* "limits.connections" */
	char *value;
	char *origin; /* "flag --workers" */
};

/* A dictionary that all workers share. */
struct dict_config {
	char *name;
	size_t bytes;
};

/* What becomes of a job that there is no room for. */
enum jobs_full { JOBS_BLOCK, JOBS_SHED, JOBS_ERROR };

enum { JOB_LANES_MAX = 8 };

struct job_lane_config {
	char *name;
	unsigned workers; /* so many of its jobs run at once; 0: any */
};

/* Jobs: threads that all workers share. */
struct job_config {
	unsigned workers; /* threads; 0: there are no jobs */
	unsigned queue;   /* jobs that wait in each lane */
	enum jobs_full when_full;
	uint32_t timeout_ms, proceed_ms; /* of each job: with its wait, and its CPU time; 0: any */
	size_t memory_bytes;             /* of each VM */
	size_t message_bytes;            /* of a job's arguments, and of its results */
	size_t buffer_bytes;             /* of the arguments of all that wait */
	struct job_lane_config *lanes;
	unsigned lane_count;             /* at least one, where there are jobs */
	char *modules, *unsafe, *compat; /* what they may require and open, comma between */
	char *more_unsafe;               /* ... and what of it the script may not; NULL: nothing */
};

/* Topics: what conn:join has where it is not told otherwise. */
struct hub_config {
	enum hub_policy policy;
	uint32_t messages, bytes; /* that may wait for a member */
	uint32_t inbox;           /* messages that may wait in each worker's box */
};

/* A kind of agents without a socket: an entry of `agents`. */
struct kind_config {
	char *name;                /* what is before the ":" of their keys */
	uint32_t idle_ms;          /* they end when no message has come for so long; 0: never */
	uint32_t most;             /* at once, of each worker */
	uint32_t mailbox;          /* messages that may wait for one of them */
	enum reload_policy policy; /* of those that an older generation has */
	struct vm_budget budget;   /* of each call of a handler */
	uint32_t proceed_ms;       /* of each call as well, its waits included; 0: any */
};

struct config {
	atomic_uint
	    refs; /* generations that live by it, and the server; the first belongs to who loaded it */
	char *script;
	struct sources *sources; /* as they were when it was loaded; NULL: not yet */
	const char *inside;      /* a module of ours that a worker's VM has before the script; NULL: none */
	struct override *overrides;
	size_t override_count;
	unsigned workers;
	size_t buffer_bytes;   /* for all buffers of the process; 0: no limit */
	size_t memory_bytes;   /* of each worker's VM; until it is loaded: of the one that it comes after */
	unsigned handshakes;   /* of TLS at once, for each worker */
	unsigned outgoing;     /* connections out at once, for each worker */
	size_t deflate_bytes;  /* of compression windows of WebSockets, for each worker */
	size_t snapshot_bytes; /* the most that a worker is given of a snapshot() */
	double garbage_share;  /* of what is live in a VM: so much garbage may wait for the collector */
	char *control;         /* where the control socket is: "auto", "off" or a path */
	/* Methods of agents that nobody calls, and what may have been meant; NULL: there are none. */
	char *strays;
	/* A line for each table of a file that handlers fill, where that is not what it seems; NULL: there are none. */
	char *shared_tables;
	/* A line for each place where the script uses a global that is not defined; NULL: there are none. */
	char *globals;
	/* The same of other things that are hardly meant. */
	char *warnings;
	char *tls_warnings; /* ... and of certificates and keys */
	bool jit;
	bool has_snapshot;                /* the script has a snapshot() */
	bool takes_snapshot;              /* its setup() takes what the generation before keeps */
	char unsafe[256];                 /* the names in `unsafe`; empty: none */
	uint32_t drain_ms;                /* 0: as long as it takes */
	uint32_t upgrade_ms;              /* 0: as long as it takes */
	unsigned reload_keep;             /* old generations that may have connections */
	enum reload_policy reload_policy; /* of connections whose listener is no more */
	bool reload_drains_old;           /* past that the oldest is drained; else the reload is refused */
	double canary_share;      /* of new connections that a new generation gets first; 0: all of them */
	double canary_max_errors; /* a larger share of those that fail withdraws it */
	uint32_t canary_window_ms;
	char *log_file; /* NULL: the log goes to standard error */
	enum log_format log_format;
	enum log_level log_level;
	uint32_t log_frame_bytes; /* a faulty frame's first bytes in the log; 0: none */
	struct dict_config *dicts;
	struct kind_config *kinds; /* by name */
	unsigned dict_count, kind_count;
	struct job_config jobs;
	struct hub_config hub;
	struct listener_config *listeners;
	unsigned listener_count;
};

/* How an attempt to load a configuration ended. */
enum config_status {
	CONFIG_OK,
	CONFIG_BAD,    /* the script or the environment is at fault */
	CONFIG_USAGE,  /* a flag of the command line is */
	CONFIG_SHORT,  /* the system is out of something: of descriptors, for one */
	CONFIG_BROKEN, /* Perilune itself is: its Lua modules are damaged */
	CONFIG_NO_MEMORY
};

/* Reads the script set, once per config. 0 or UV_ENOMEM. */
int config_read(struct config *config);

/*
 * Loads config->script (whose overrides are set) in a VM of its own, after config_read() if that is yet to be done, and
 * fills in the rest; once per config. It is to be freed whatever comes back. *text, to be freed by the caller, may be
 * NULL:
 *   CONFIG_OK      with `print` "print" or "json": every value and its origin; else NULL
 *   CONFIG_BAD, CONFIG_USAGE  what is wrong, for people; with "json": {"ok":false,"errors":[…]} or
 *                  {"ok":false,"message":…}
 *   CONFIG_BROKEN, CONFIG_SHORT  what is wrong, for people
 */
enum config_status config_load(struct config *config, const char *print, char **text);

/* Tells of each place where the script uses a global that is not defined: "app.lua:3: undefined global …". */
void config_tell_globals(const struct config *config, void (*tell)(const char *text));

/* Tells of each other place where something is allowed and hardly meant. */
void config_tell_warnings(const struct config *config, void (*tell)(const char *text));

/* Tells of each certificate of tls://, a line each: whose it is, and how long. */
void config_tell_certificates(const struct config *config, void (*tell)(const char *text));

/* Logs all of that. */
void config_warn(const struct config *config);

/* Tells of tables by which connections see each other, and where that ends. Not logged: mostly it is known. */
void config_tell_shared(const struct config *config, void (*tell)(const char *text));

/* Copies its arguments. A later override of the same path wins. 0 or UV_ENOMEM. */
int config_add_override(struct config *config, const char *path, const char *value, const char *origin);

void config_free(struct config *config);

/* The same script with the same overrides, to be loaded anew; held once. NULL: no memory. */
struct config *config_again(const struct config *config);

/* Any thread. The last one to let go of a config_again() frees it. */
void config_hold(struct config *config);
void config_drop(struct config *config);

/* Listeners of `next` that `now` has, too, by their addresses: they get their slots. */
void config_follow(const struct config *now, struct config *next);

/* Are the listeners the same, whatever their settings and their order? */
bool config_has_same_listeners(const struct config *a, const struct config *b);

/* Which of the listeners has this slot, or -1. Tries `guess` first. */
int config_find_slot(const struct config *config, unsigned slot, unsigned guess);

/* The kind of that name, of `n` bytes, or -1. */
int config_find_kind(const struct config *config, const char *name, size_t n);

/*
 * After config_follow(): what differs in `next` and cannot be changed while `now` is being served: the settings' names,
 * comma between. False: nothing does.
 */
bool config_needs_restart(const struct config *now, const struct config *next, char *what, size_t size);

/* Lets Lua find the script set as require("perilune.sources"). The config must outlive the VM. May raise. */
void config_open_sources(lua_State *lua, const struct config *config);

/* Pushes the options table that perilune.app's load() takes. Raises when Lua's memory is short. */
void config_push_options(lua_State *lua, const struct config *config);

/*
 * The keys that overrides may set ("workers", "limits.connections", …), NULL-terminated, to be
 * freed with config_free_paths(). 0, UV_ENOMEM, or UV_ENOENT: Perilune's Lua modules are damaged.
 */
int config_paths(char ***paths);
void config_free_paths(char **paths);

/* The memory this process may use, in bytes: the machine's, or its control group's. */
uint64_t config_memory(void);

/* The number of processors this process may use. */
unsigned config_processors(void);
