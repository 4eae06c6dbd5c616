#include "net/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

enum { LINE_BYTES = 4096 };

static const char BLANKS[] = " \t\r\n";

/* Of a longer line the rest is dropped, not taken for another. False: the file has ended. */
static bool read_hosts_line(FILE *file, char line[LINE_BYTES])
{
	int byte;
	if (!fgets(line, LINE_BYTES, file))
		return false;
	if (!strchr(line, '\n'))
		do
			byte = getc(file);
		while (byte != EOF && byte != '\n');
	line[strcspn(line, "#")] = '\0';
	return true;
}

/* Is the name, of n bytes, one of those behind the address? */
static bool has_name(char **rest, const char *name, size_t n)
{
	const char *word;
	while ((word = strtok_r(NULL, BLANKS, rest)))
		if (strlen(word) == n && !strncasecmp(word, name, n))
			return true;
	return false;
}

static int find_in_file(FILE *file, const char *name, size_t n, int family, struct addresses *addresses)
{
	char line[LINE_BYTES], *rest;
	union address address;
	bool is_known = false;
	while (read_hosts_line(file, line)) {
		const char *text = strtok_r(line, BLANKS, &rest);
		if (!text || !address_read(text, &address) || !has_name(&rest, name, n))
			continue;
		is_known = true;
		if (address.any.sa_family == family)
			addresses_add(addresses, &address);
	}
	return addresses->count ? 0 : is_known ? UV_EAI_NODATA : UV_EAI_NONAME;
}

static bool is_localhost(const char *name, size_t n)
{
	static const char LOCALHOST[] = "localhost";
	size_t bytes = sizeof LOCALHOST - 1;
	return n >= bytes && !strncasecmp(name + n - bytes, LOCALHOST, bytes) &&
	       (n == bytes || name[n - bytes - 1] == '.');
}

int hosts_find(const char *path, const char *name, int family, struct addresses *addresses)
{
	size_t n = strlen(name);
	int err = UV_EAI_NONAME;
	union address loopback;
	FILE *file = fopen(path, "re");
	if (!file && (errno == ENOMEM || errno == EMFILE || errno == ENFILE))
		return -errno;
	n -= n && name[n - 1] == '.';
	if (file) {
		err = find_in_file(file, name, n, family, addresses);
		fclose(file);
	}
	if (err == UV_EAI_NONAME && is_localhost(name, n)) {
		address_read(family == AF_INET ? "127.0.0.1" : "::1", &loopback);
		addresses_add(addresses, &loopback);
		err = 0;
	}
	return err;
}
