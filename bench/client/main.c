/* The load client of the benchmark: reads the command line, pins itself to a core, runs one mode. */
#define _GNU_SOURCE
#include "client.h"
#include "tls.h"
#include "wire.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { GRACE_S = 60, MAX_PAYLOAD = 1 << 20, FAN_SIZE_MIN = 24 };

static const struct {
	const char *name;
	int (*run)(const struct options *o);
} modes[] = {
	{ "load", load_run }, { "idle", idle_run }, { "churn", churn_run },
	{ "rss", rss_run },   { "fan", fan_run },
};

static const char usage[] =
    "usage: load MODE [options]        prints one JSON object\n"
    "  load    closed loop: frames a second, latency, CPU per frame\n"
    "  idle    open connections, exchange a frame on each, report the server's memory\n"
    "  churn   connect, one frame, close: cycles a second\n"
    "  rss     the server's memory\n"
    "  fan     one more connection publishes, these are members: deliveries a second. --pipeline: messages "
    "in a burst\n"
    "\n"
    "  --host ADDR        IPv4 address of the server (127.0.0.1)\n"
    "  --port N\n"
    "  --pid N            the server process, for its CPU time and memory\n"
    "  --backend N        a process that the server asks, for the same, apart from it\n"
    "  --core N           run on this core\n"
    "  --connections N    connections, or slots of churn (50)\n"
    "  --pipeline N       frames, requests or messages in flight on each connection (1)\n"
    "  --size BYTES       payload, at least 8, of a WebSocket 16 (32)\n"
    "  --sources N        connect from 127.0.0.1 … 127.0.0.N (1)\n"
    "  --warmup S         before measuring (0.5)\n"
    "  --duration S       measured (2)\n"
    "  --hold S           idle: silence before memory is read (1)\n"
    "  --verify           compare the serial number of each reply\n"
    "  --tls              TLS 1.3 with TLS_AES_128_GCM_SHA256, trusting any certificate\n"
    "  --udp              load: datagrams, each of them a frame; tells how many were lost\n"
    "  --resume           churn: resume the newest session\n"
    "  --http FILE        requests instead of frames: FILE is one, of HTTP/1.1. Sixteen zeros in it become a "
    "number\n"
    "                     that differs each time. All responses are 200 and as long as the first\n"
    "  --websocket PATH   text messages instead of frames, to a WebSocket at PATH\n"
    "  --binary           websocket: binary ones\n"
    "  --redis            fan: PUBLISH and SUBSCRIBE of Redis in place of frames\n"
    "  --deflate          idle, websocket: offer permessage-deflate without context, and send stored blocks\n"
    "exit status: 0, 1 when errors were counted, 2 when it could not run\n";

void die(const char *what)
{
	if (errno)
		fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	else
		fprintf(stderr, "load: %s\n", what);
	exit(2);
}

void *need_zeroed(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die("calloc");
	return memory;
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die("cannot run on that core");
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static long number(const char *text, long low, long high)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || end == text || *end || value < low || value > high) {
		fprintf(stderr, "load: %s is not a number from %ld to %ld\n", text, low, high);
		exit(2);
	}
	return value;
}

static double seconds(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0) || value > 3600) {
		fprintf(stderr, "load: %s is not a number of seconds\n", text);
		exit(2);
	}
	return value;
}

static void parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "host", required_argument, NULL, 'H' },
		{ "port", required_argument, NULL, 'p' },
		{ "pid", required_argument, NULL, 'P' },
		{ "backend", required_argument, NULL, 'b' },
		{ "core", required_argument, NULL, 'c' },
		{ "connections", required_argument, NULL, 'n' },
		{ "pipeline", required_argument, NULL, 'd' },
		{ "size", required_argument, NULL, 's' },
		{ "sources", required_argument, NULL, 'S' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "duration", required_argument, NULL, 't' },
		{ "hold", required_argument, NULL, 'h' },
		{ "verify", no_argument, NULL, 'v' },
		{ "tls", no_argument, NULL, 'T' },
		{ "udp", no_argument, NULL, 'u' },
		{ "resume", no_argument, NULL, 'r' },
		{ "http", required_argument, NULL, 'a' },
		{ "websocket", required_argument, NULL, 'W' },
		{ "binary", no_argument, NULL, 'B' },
		{ "deflate", no_argument, NULL, 'z' },
		{ "redis", no_argument, NULL, 'R' },
		{ 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'H':
			o->host = optarg;
			break;
		case 'p':
			o->port = (uint16_t)number(optarg, 1, 65535);
			break;
		case 'P':
			o->server_pid = (pid_t)number(optarg, 1, 1 << 30);
			break;
		case 'b':
			o->backend_pid = (pid_t)number(optarg, 1, 1 << 30);
			break;
		case 'c':
			pin((int)number(optarg, 0, CPU_SETSIZE - 1));
			break;
		case 'n':
			o->connections = (int)number(optarg, 1, 1000000);
			break;
		case 'd':
			o->pipeline = (int)number(optarg, 1, 65536);
			break;
		case 's':
			o->size = (size_t)number(optarg, 8, MAX_PAYLOAD);
			break;
		case 'S':
			o->sources = (int)number(optarg, 1, 250);
			break;
		case 'w':
			o->warmup_s = seconds(optarg);
			break;
		case 't':
			o->duration_s = seconds(optarg);
			break;
		case 'h':
			o->hold_s = seconds(optarg);
			break;
		case 'v':
			o->verify = true;
			break;
		case 'T':
			o->tls = true;
			break;
		case 'u':
			o->udp = true;
			break;
		case 'r':
			o->resume = true;
			break;
		case 'a':
			o->http = optarg;
			break;
		case 'W':
			o->websocket = optarg;
			break;
		case 'B':
			o->binary = true;
			break;
		case 'R':
			o->redis = true;
			break;
		case 'z':
			o->deflate = true;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
	}
}

/* Dies of options that do not go together. */
static void check(const struct options *o, const char *mode)
{
	const bool is_load = strcmp(mode, "load") == 0, is_idle = strcmp(mode, "idle") == 0,
		   is_fan = strcmp(mode, "fan") == 0;

	if (o->resume && !o->tls)
		die("--resume is of --tls");
	if (o->udp && (o->tls || o->http || o->websocket || !is_load))
		die("--udp is of load, and without --tls, --http and --websocket");
	if ((o->http || o->websocket) && !is_load && !is_idle)
		die("--http and --websocket are of load and idle");
	if (o->http && o->websocket)
		die("--http or --websocket");
	if ((o->binary || o->deflate) && !o->websocket)
		die("--binary and --deflate are of --websocket");
	if (o->redis && !is_fan)
		die("--redis is of fan");
	if (is_fan && (o->tls || o->udp || o->size < FAN_SIZE_MIN))
		die("fan has neither --tls nor --udp, and a --size of 24 at least");
	if (o->websocket && o->size < WIRE_DIGITS)
		die("--size is at least 16 with --websocket");
	/* Servers leave shorter messages as they are. Longer ones are compressed, to lengths that nobody knows. */
	if (o->deflate && o->size >= 64)
		die("--size is less than 64 with --deflate");
}

int main(int argc, char **argv)
{
	struct options o = {
		.host = "127.0.0.1",
		.connections = 50,
		.pipeline = 1,
		.sources = 1,
		.size = 32,
		.warmup_s = 0.5,
		.duration_s = 2,
		.hold_s = 1,
	};

	if (argc < 2) {
		fputs(usage, stderr);
		return 2;
	}
	parse(&o, argc - 1, argv + 1);
	errno = 0;
	check(&o, argv[1]);
	raise_descriptor_limit();
	tls_prepare(&o);
	/* Whatever hangs, this does not: SIGALRM ends it. */
	alarm((unsigned)(o.warmup_s + o.duration_s + 2 * o.hold_s) + GRACE_S);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			return modes[i].run(&o);
	fputs(usage, stderr);
	return 2;
}
