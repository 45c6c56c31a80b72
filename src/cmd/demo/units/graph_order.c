#include "check.h"
#include "graph.h"

#include <string.h>

bool graph_order(const graph *g, int *order)
{
    int incoming[GRAPH_NODES_MAX] = {0}, begun = 0, ended = 0;
    for (int e = 0; e < g->edges; e++)
        incoming[g->edge[e].to]++;
    for (int i = 0; i < g->nodes; i++)
        if (incoming[i] == 0)
            order[ended++] = i;
    while (begun < ended) {
        int node = order[begun++];
        for (int e = g->first[node]; e >= 0; e = g->edge[e].next)
            if (--incoming[g->edge[e].to] == 0)
                order[ended++] = g->edge[e].to;
    }
    return ended == g->nodes;
}

/* Tarjan's algorithm. */
typedef struct {
    const graph *g;
    int *component;
    int count, next, height;
    int number[GRAPH_NODES_MAX], lowest[GRAPH_NODES_MAX], stack[GRAPH_NODES_MAX];
    bool stacked[GRAPH_NODES_MAX];
} search;

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static void visit(search *s, int node)
{
    s->number[node] = s->lowest[node] = ++s->next;
    s->stack[s->height++] = node;
    s->stacked[node] = true;
    for (int e = s->g->first[node]; e >= 0; e = s->g->edge[e].next) {
        int to = s->g->edge[e].to;
        if (s->number[to] == 0) {
            visit(s, to);
            s->lowest[node] = smaller(s->lowest[node], s->lowest[to]);
        } else if (s->stacked[to]) {
            s->lowest[node] = smaller(s->lowest[node], s->number[to]);
        }
    }
    if (s->lowest[node] != s->number[node])
        return;
    int member;
    do {
        member = s->stack[--s->height];
        s->stacked[member] = false;
        s->component[member] = s->count;
    } while (member != node);
    s->count++;
}

int graph_components(const graph *g, int *component)
{
    search s;
    memset(&s, 0, sizeof s);
    s.g = g;
    s.component = component;
    for (int i = 0; i < g->nodes; i++)
        if (s.number[i] == 0)
            visit(&s, i);
    return s.count;
}

int demo_check_graph_order(void)
{
    graph g;
    int order[GRAPH_NODES_MAX], place[GRAPH_NODES_MAX];
    graph_init(&g, 9);
    static const int edges[][2] = {{8, 3}, {3, 1}, {8, 1}, {1, 0}, {5, 0}, {7, 5}, {2, 7}, {6, 2}, {4, 6}};
    for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++)
        CHECK(graph_add(&g, edges[i][0], edges[i][1], 1));
    CHECK(graph_order(&g, order));
    for (int i = 0; i < 9; i++)
        place[order[i]] = i;
    for (int e = 0; e < g.edges; e++)
        CHECK(place[g.edge[e].from] < place[g.edge[e].to]);
    int component[GRAPH_NODES_MAX];
    CHECK(graph_components(&g, component) == 9);
    CHECK(graph_add(&g, 0, 2, 1) && !graph_order(&g, order));
    CHECK(graph_components(&g, component) == 6);
    CHECK(component[0] == component[2] && component[7] == component[5] && component[1] != component[0]);
    return 0;
}
