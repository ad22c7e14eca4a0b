// LD_PRELOAD: names that end in ".seawall.test" are this machine, as the file RESOLVER says: "" at once, "slow" after
// 1.5 s, "hung" when it doesn't say so any more, "gone" never (EAI_AGAIN). All others are asked of the real resolver.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int says(const char *word) {
    char text[16] = "";
    FILE *file = fopen(getenv("RESOLVER"), "r");
    if (file) {
        if (!fgets(text, sizeof text, file)) text[0] = 0;
        fclose(file);
    }
    return strcmp(text, word) == 0;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    static const char ours[] = ".seawall.test";
    if (!real) real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    size_t size = host ? strlen(host) : 0;
    if (size < sizeof ours || strcmp(host + size - sizeof ours + 1, ours) != 0) return real(host, service, hints, found);
    if (says("gone")) return EAI_AGAIN;
    if (says("slow")) usleep(1500000);
    while (says("hung")) usleep(20000);
    return real("127.0.0.1", service, hints, found);
}
