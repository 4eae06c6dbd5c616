#include "config/tls.h"

#include "config/config.h"
#include "tls/outgoing.h"
#include "tls/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1 << 20, PLACE_BYTES = 8192 };

static void *tls_allocate(lua_State *lua, size_t n, size_t bytes)
{
	void *block = calloc(n ? n : 1, bytes);
	if (!block) {
		luaL_error(lua, "not enough memory");
		abort(); /* not reached: that raises */
	}
	return block;
}

/* The string at the top, popped. */
static char *take_string(lua_State *lua)
{
	size_t n;
	const char *text = luaL_checklstring(lua, -1, &n);
	char *copy = tls_allocate(lua, n + 1, 1);
	memcpy(copy, text, n);
	lua_pop(lua, 1);
	return copy;
}

/* The string in a field of the table at the top; NULL: it is nil. */
static char *take_field(lua_State *lua, const char *name)
{
	lua_getfield(lua, -1, name);
	if (!lua_isnil(lua, -1))
		return take_string(lua);
	lua_pop(lua, 1);
	return NULL;
}

/* ---- files ---- */

static void find_place(const struct config *config, const char *path, char *place, size_t size)
{
	const char *slash = strrchr(config->script, '/');
	if (*path == '/' || !slash)
		snprintf(place, size, "%s", path);
	else
		snprintf(place, size, "%.*s/%s", (int)(slash - config->script), config->script, path);
}

/* 0 or an errno. A FIFO would be waited for. */
static int read_all(const char *place, struct tls_file *file)
{
	struct stat found;
	int fd = open(place, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	if (fd < 0)
		return errno;
	if (fstat(fd, &found))
		err = errno;
	else if (!S_ISREG(found.st_mode))
		err = EINVAL;
	else if (found.st_size > FILE_BYTES_MAX)
		err = EFBIG;
	if (!err && !(file->bytes = malloc((size_t)found.st_size + 1)))
		err = ENOMEM;
	while (!err && file->count < (size_t)found.st_size) {
		ssize_t n = read(fd, file->bytes + file->count, (size_t)found.st_size - file->count);
		if (n <= 0) {
			err = n < 0 ? errno : 0;
			break;
		}
		file->count += (size_t)n;
	}
	close(fd);
	return err;
}

/* Of the path at the top, popped; nil: there is none. */
static void take_file(lua_State *lua, const struct config *config, struct tls_file *file)
{
	char place[PLACE_BYTES];
	if (lua_isnil(lua, -1)) {
		lua_pop(lua, 1);
		return;
	}
	file->path = take_string(lua);
	find_place(config, file->path, place, sizeof place);
	file->place = strdup(place);
	if (!file->place)
		luaL_error(lua, "not enough memory");
	int err = read_all(place, file);
	if (err)
		luaL_error(lua, "%s cannot be read: %s", file->path,
			   err == EINVAL ? "it is no file" : strerror(err));
}

/* ---- the table ---- */

static void tls_read_pair(lua_State *lua, const struct config *config, struct tls_pair *pair)
{
	lua_getfield(lua, -1, "certificate");
	take_file(lua, config, &pair->certificate);
	lua_getfield(lua, -1, "key");
	take_file(lua, config, &pair->key);
}

static void tls_read_pairs(lua_State *lua, const struct config *config, struct tls_identity *identity)
{
	lua_getfield(lua, -1, "pairs");
	int count = (int)lua_objlen(lua, -1);
	for (int i = 1; i <= count && i <= TLS_PAIRS_MAX; i++) {
		lua_rawgeti(lua, -1, i);
		tls_read_pair(lua, config, &identity->pairs[identity->pair_count++]);
		lua_pop(lua, 1);
	}
	lua_pop(lua, 1);
}

static void tls_read_identities(lua_State *lua, const struct config *config, struct tls_settings *settings)
{
	lua_getfield(lua, -1, "identities");
	size_t count = lua_objlen(lua, -1);
	settings->identities = tls_allocate(lua, count, sizeof *settings->identities);
	for (size_t i = 0; i < count; i++) {
		struct tls_identity *identity = &settings->identities[settings->identity_count++];
		lua_rawgeti(lua, -1, (int)i + 1);
		identity->name = take_field(lua, "name");
		tls_read_pairs(lua, config, identity);
		lua_getfield(lua, -1, "ocsp");
		take_file(lua, config, &identity->ocsp);
		lua_pop(lua, 1);
	}
	lua_pop(lua, 1);
}

/* As on the wire: a length, then the name. */
static void tls_read_alpn(lua_State *lua, uint8_t **alpn, size_t *bytes)
{
	enum { NAMES_BYTES = 1024 };
	lua_getfield(lua, -1, "alpn");
	int count = (int)lua_objlen(lua, -1);
	if (count)
		*alpn = tls_allocate(lua, NAMES_BYTES, 1);
	for (int i = 1; i <= count; i++) {
		size_t n;
		lua_rawgeti(lua, -1, i);
		const char *name = luaL_checklstring(lua, -1, &n);
		if (n > UINT8_MAX || *bytes + 1 + n > NAMES_BYTES)
			luaL_error(lua, "alpn is too long");
		(*alpn)[(*bytes)++] = (uint8_t)n;
		memcpy(*alpn + *bytes, name, n);
		*bytes += n;
		lua_pop(lua, 1);
	}
	lua_pop(lua, 1);
}

static enum tls_client_rule client_of(const char *name)
{
	if (!strcmp(name, "require"))
		return TLS_CLIENT_REQUIRE;
	return !strcmp(name, "request") ? TLS_CLIENT_REQUEST : TLS_CLIENT_ANY;
}

static int take_version(lua_State *lua)
{
	lua_getfield(lua, -1, "min_version");
	int version = (int)lua_tointeger(lua, -1);
	lua_pop(lua, 1);
	return version;
}

void config_read_tls(lua_State *lua, const struct config *config, struct tls_settings **settings)
{
	char why[512];
	struct tls_settings *tls = *settings = tls_allocate(lua, 1, sizeof *tls);
	luaL_checkstack(lua, 10, "not enough memory");
	tls_read_identities(lua, config, tls);
	tls_read_alpn(lua, &tls->alpn, &tls->alpn_bytes);
	lua_getfield(lua, -1, "client");
	tls->client = client_of(luaL_checkstring(lua, -1));
	lua_pop(lua, 1);
	lua_getfield(lua, -1, "authority");
	take_file(lua, config, &tls->authority);
	tls->min_version = take_version(lua);
	tls->ciphers = take_field(lua, "ciphers");
	if (tls_settings_check(tls, why, sizeof why))
		luaL_error(lua, "%s", why);
}

/* ---- connections out ---- */

struct outgoing_load {
	const struct config *config;
	struct tls_outgoing *outgoing;
};

/* outgoing_load, the table */
static int read_outgoing_protected(lua_State *lua)
{
	const struct outgoing_load *load = lua_touserdata(lua, 1);
	struct tls_outgoing *outgoing = load->outgoing;
	outgoing->server_name = take_field(lua, "server_name");
	lua_getfield(lua, -1, "verify");
	outgoing->verify = lua_toboolean(lua, -1);
	lua_pop(lua, 1);
	lua_getfield(lua, -1, "authority");
	take_file(lua, load->config, &outgoing->authority);
	tls_read_pair(lua, load->config, &outgoing->pair);
	tls_read_alpn(lua, &outgoing->alpn, &outgoing->alpn_bytes);
	outgoing->min_version = take_version(lua);
	outgoing->ciphers = take_field(lua, "ciphers");
	return 0;
}

const char *config_read_outgoing(lua_State *lua, const struct config *config, struct tls_outgoing *outgoing,
				 char *text, size_t size)
{
	struct outgoing_load load = { config, outgoing };
	*outgoing = (struct tls_outgoing){ 0 };
	luaL_checkstack(lua, 3, "not enough memory");
	lua_pushcfunction(lua, read_outgoing_protected);
	lua_pushlightuserdata(lua, &load);
	lua_pushvalue(lua, -3);
	if (!lua_pcall(lua, 2, 0, 0))
		return NULL;
	tls_outgoing_deinit(outgoing);
	const char *why = lua_tostring(lua, -1);
	snprintf(text, size, "%s", why ? why : "not enough memory");
	lua_pop(lua, 1);
	return text;
}

/* ---- what has changed since ---- */

static bool file_is_outdated(const struct tls_file *file)
{
	struct tls_file now = { 0 };
	if (!file->path)
		return false;
	bool is_same = !read_all(file->place, &now) && now.bytes && now.count == file->count &&
		       !memcmp(now.bytes, file->bytes, now.count);
	if (now.bytes)
		explicit_bzero(now.bytes, now.count);
	free(now.bytes);
	return !is_same;
}

static bool settings_are_outdated(const struct tls_settings *settings)
{
	bool outdated = file_is_outdated(&settings->authority);
	for (unsigned i = 0; i < settings->identity_count && !outdated; i++) {
		const struct tls_identity *identity = &settings->identities[i];
		outdated = file_is_outdated(&identity->ocsp);
		for (unsigned k = 0; k < identity->pair_count && !outdated; k++)
			outdated = file_is_outdated(&identity->pairs[k].certificate) ||
				   file_is_outdated(&identity->pairs[k].key);
	}
	return outdated;
}

bool config_tls_is_outdated(const struct config *config)
{
	for (unsigned i = 0; i < config->listener_count; i++)
		if (config->listeners[i].tls && settings_are_outdated(config->listeners[i].tls))
			return true;
	return false;
}
