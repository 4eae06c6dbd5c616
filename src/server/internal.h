/*
 * The server itself, for the files that make it up: server.c, start.c, requests.c, recordings.c, reports.c, takeover.c,
 * stop.c.
 * Nobody else includes it.
 *
 * Threads: the main thread, but where said otherwise.
 */
#pragma once

#include "bind/job_vm.h"
#include "restart/inherit.h"
#include "restart/kept.h"
#include "restart/notify.h"
#include "restart/upgrade.h"
#include "server/acceptor.h"
#include "server/commands.h"
#include "server/listeners.h"
#include "server/pulse.h"
#include "server/recorder.h"
#include "server/reload.h"
#include "server/server.h"
#include "server/snapshots.h"
#include "server/trace_file.h"
#include "server/watch.h"
#include "worker/worker.h"

enum { SERVER_SIGNALS = 6 };

/* LEAVING: another process accepts; connections are served as before, for so long as a drain may take. */
enum stage { STARTING, SERVING, LEAVING, DRAINING };

struct server {
	struct config *config; /* of the newest generation; held */
	enum stage stage;
	uv_loop_t loop;
	struct reactor reactor; /* turns it */
	uv_async_t wake;
	uv_timer_t last_resort; /* a worker that does not stop; before, the time to leave */
	uv_signal_t signals[SERVER_SIGNALS];
	struct mailbox mailbox;
	struct listeners listeners;
	struct acceptor acceptor;
	struct worker *workers;
	struct kept_source *sources;  /* of each worker: what it is given of `kept` */
	struct counters_all counters; /* of all workers, and of the acceptor */
	struct dicts *dicts;          /* shared by all workers, and by the generations of the script */
	struct jobs *jobs;            /* the same */
	struct job_surroundings surroundings;
	struct report jobs_over; /* of the last of their threads */
	unsigned to_end;         /* of the loader and the jobs: what the end waits for */
	bool loader_has_ended;
	struct names *names; /* the same: of agents, */
	struct hub *hub;     /* ... and of topics */
	struct reloads reloads;
	struct notify notify;
	struct pulse pulse;
	struct inheritance inheritance;
	struct upgrade upgrade;
	struct snapshots *snapshots; /* asked for by an upgrade, and not yet answered; or NULL */
	struct kept kept;            /* what another process keeps for our workers, until they have it */
	int gate; /* the end of a pipe at which a new process waits before it reads datagrams; -1: none does */
	atomic_bool leaving; /* the same as the stage, for workers */
	struct commands commands;
	uint64_t began_ms;
	struct watch watch;
	struct server_options options;
	struct recorder recorder;
	struct trace_file trace_file;     /* of --record */
	uint64_t recording_client;        /* who is sent the recording; 0: nobody */
	unsigned started, ready, stopped; /* workers */
	bool script_failed;               /* on a worker, though the main thread could load it */
	bool failed;                      /* to start */
	bool reload_due;                  /* asked for while it started */
	bool can_reload;                  /* the loader's thread is there */
	bool finishing;                   /* the workers have stopped */
	bool forced, stuck;
	struct overtime loaders_overtime, jobs_overtime[JOB_THREADS_MAX];
	const char *cut_by; /* who asked for it */
	uint64_t drain_began_ms;
};

/* server.c */

/* Connections whose descriptors are open. */
unsigned server_count_open(const struct server *server);

/* The start has failed: says so in the log, and to whoever waits for us to serve. */
void server_cannot(struct server *server, const char *message, const char *why);

/* Tells of calls that block in the system, and of those that do so no more. */
void server_look_at_stalls(struct server *server);

/* Of the configuration, by its place there. */
struct listener *server_listener(struct server *server, unsigned i);

/* start.c */

/* 0 or an error, logged; then those that were started are to be drained. */
int start_workers(struct server *server);

/* All workers are ready: accepts, and says so. */
void start_serving(struct server *server);

/* requests.c */

/* The start of a reload or an upgrade: follows a working directory, and sockets, that were moved away. */
void requests_look_around(struct server *server);

/* Heeds signals, with those that came since server_expect_signals(). */
void requests_watch_signals(struct server *server);

/* It serves: does what it was asked for too early. */
void requests_catch_up(struct server *server);

/* From now on reloads can be begun. False: logged. */
bool requests_open_reloads(struct server *server);

/* Opens the control socket, see commands_open(). */
bool requests_open_commands(struct server *server);

/* Reloads when the app's files change. */
void requests_watch_files(struct server *server);

/* recordings.c */

/* Begins what --record asks for. 0 or an error, logged. */
int recordings_start(struct server *server);

/* The server ends: what is not in the file by now will not be. Idempotent. */
void recordings_close(struct server *server);

/* A client's; see struct commands. NULL: it has its reply; else why not. */
const char *recordings_begin(void *server, uint64_t client, const char *listener,
			     struct recorder_limits limits, char *why, size_t size);
void recordings_on_stream(void *server, uint64_t client, enum stream_event event);

/* reports.c */

/* Has it delivered in the main thread. Any thread. */
void reports_post(void *server, struct report *report);

/* What becomes of the workers' reports, and of the loader's. */
extern const struct report_receivers REPORT_RECEIVERS;
struct loader_links reports_loader_links(struct server *server);

/* Reports have come, or a connection has gone that was the last one. */
void reports_on_wake(uv_async_t *wake);

/* takeover.c */

/* Another process is to take over. NULL, or why not: the log says it, too. */
const char *takeover_begin(struct server *server);

/* From the begin until it has failed; for ever, where it has not. */
bool takeover_is_under_way(const struct server *server);

/* The server stops: one that has not come so far that another process serves is ended. */
void takeover_cancel(struct server *server);

/* At the start: what the old process keeps, where we take over from one. False: logged, and told. */
bool takeover_take_kept(struct server *server);

/* Has it what it waits for? */
void takeover_look(struct server *server);

/* It has, or has not (upgrade.h). */
void takeover_on_done(void *server, pid_t pid);
void takeover_on_failure(void *server, const char *why);

/* stop.c */

/* Lets connections finish, for as long as timeout.drain allows. */
void stop_drain(struct server *server);

/* The same, and logs that it begins, with its cause. */
void stop_begin(struct server *server, struct log_field cause);

/* Cuts what is left, in a drain. `by`: whom it is asked for by. Idempotent. */
void stop_force(struct server *server, const char *by);

/* All workers have stopped: no more commands and reloads; the loader buries what is left. Once. */
void stop_finish(struct server *server);

/* So has the loader, or the threads of jobs: with the last of them what keeps the loop going is closed. */
void stop_loader_ended(struct server *server);
void stop_jobs_ended(struct server *server);

void stop_log_summary(struct server *server);

/* Of the process; logs if connections were cut. */
int stop_exit_code(const struct server *server);
