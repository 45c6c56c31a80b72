#include "check.h"
#include "graph.h"

#include <limits.h>

void graph_init(graph *g, int nodes)
{
    g->nodes = nodes;
    g->edges = 0;
    for (int i = 0; i < nodes; i++)
        g->first[i] = -1;
}

bool graph_add(graph *g, int from, int to, int weight)
{
    if (g->edges == GRAPH_EDGES_MAX || from < 0 || to < 0 || from >= g->nodes || to >= g->nodes || weight < 0)
        return false;
    g->edge[g->edges] = (graph_edge){from, to, weight, g->first[from]};
    g->first[from] = g->edges++;
    return true;
}

/* A heap of nodes by distance; `place` says where each node is in it. */
typedef struct {
    int count, node[GRAPH_NODES_MAX], place[GRAPH_NODES_MAX];
    const int *distance;
} heap;

static void put(heap *h, int at, int node)
{
    h->node[at] = node;
    h->place[node] = at;
}

static void rise(heap *h, int at)
{
    int node = h->node[at];
    while (at > 0 && h->distance[h->node[(at - 1) / 2]] > h->distance[node]) {
        put(h, at, h->node[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(h, at, node);
}

static int take_nearest(heap *h)
{
    int nearest = h->node[0], last = h->node[--h->count], at = 0;
    for (int child = 1; child < h->count; child = 2 * at + 1) {
        if (child + 1 < h->count && h->distance[h->node[child + 1]] < h->distance[h->node[child]])
            child++;
        if (h->distance[h->node[child]] >= h->distance[last])
            break;
        put(h, at, h->node[child]);
        at = child;
    }
    if (h->count > 0)
        put(h, at, last);
    return nearest;
}

void graph_distances(const graph *g, int from, int *distances)
{
    heap h = {.count = 0, .distance = distances};
    for (int i = 0; i < g->nodes; i++) {
        distances[i] = i == from ? 0 : INT_MAX;
        put(&h, h.count, i);
        rise(&h, h.count++);
    }
    while (h.count > 0) {
        int node = take_nearest(&h);
        if (distances[node] == INT_MAX)
            break;
        for (int e = g->first[node]; e >= 0; e = g->edge[e].next) {
            int to = g->edge[e].to, longer = distances[node] + g->edge[e].weight;
            if (longer < distances[to]) {
                distances[to] = longer;
                rise(&h, h.place[to]);
            }
        }
    }
    for (int i = 0; i < g->nodes; i++)
        if (distances[i] == INT_MAX)
            distances[i] = -1;
}

int demo_check_graph_paths(void)
{
    graph g;
    int distances[GRAPH_NODES_MAX];
    graph_init(&g, 7);
    static const int edges[][3] = {{0, 1, 7}, {0, 2, 3}, {2, 1, 1}, {1, 3, 2}, {2, 3, 8}, {3, 4, 2}, {5, 0, 1}, {4, 0, 9}};
    for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++)
        CHECK(graph_add(&g, edges[i][0], edges[i][1], edges[i][2]));
    CHECK(!graph_add(&g, 0, 7, 1) && !graph_add(&g, 0, 1, -1));
    graph_distances(&g, 0, distances);
    static const int wanted[] = {0, 4, 3, 6, 8, -1, -1};
    for (int i = 0; i < 7; i++)
        CHECK(distances[i] == wanted[i]);
    graph_init(&g, GRAPH_NODES_MAX);
    for (int i = 0; i + 1 < GRAPH_NODES_MAX; i++)
        CHECK(graph_add(&g, i, i + 1, 1) && (i % 8 != 0 || graph_add(&g, i, i + 5 < 64 ? i + 5 : 63, 2)));
    graph_distances(&g, 0, distances);
    CHECK(distances[5] == 2 && distances[8] == 5 && distances[63] == 63 - 7 * 3 - 3);
    return 0;
}
