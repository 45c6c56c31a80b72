// Words kept once each, so that equal words have equal numbers; and a trie over them.
#include "check.h"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

enum class Symbol : std::uint32_t {};

class Interner {
public:
    Symbol symbol(std::string_view word)
    {
        if (const auto found = numbers_.find(word); found != numbers_.end())
            return found->second;
        const auto number = static_cast<Symbol>(words_.size());
        // A deque never moves its words, so the views in the map stay good.
        words_.emplace_back(word);
        numbers_.emplace(words_.back(), number);
        return number;
    }

    std::string_view word(Symbol symbol) const { return words_.at(static_cast<std::size_t>(symbol)); }
    std::size_t size() const { return words_.size(); }

private:
    std::deque<std::string> words_;
    std::unordered_map<std::string_view, Symbol> numbers_;
};

class Trie {
public:
    void insert(std::string_view word, Symbol symbol)
    {
        Node *node = &root_;
        for (const char c : word) {
            auto &next = node->children[c];
            if (!next)
                next = std::make_unique<Node>();
            node = next.get();
        }
        node->symbols.insert(symbol);
    }

    std::set<Symbol> beginning_with(std::string_view start) const
    {
        const Node *node = &root_;
        for (const char c : start) {
            const auto next = node->children.find(c);
            if (next == node->children.end())
                return {};
            node = next->second.get();
        }
        std::set<Symbol> out;
        collect(*node, out);
        return out;
    }

private:
    struct Node {
        std::map<char, std::unique_ptr<Node>> children;
        std::set<Symbol> symbols;
    };

    static void collect(const Node &node, std::set<Symbol> &out)
    {
        out.insert(node.symbols.begin(), node.symbols.end());
        for (const auto &[c, child] : node.children)
            collect(*child, out);
    }

    Node root_;
};

std::vector<std::string_view> paths_of(std::string_view path)
{
    std::vector<std::string_view> out;
    for (std::size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/', slash + 1))
        out.push_back(path.substr(0, slash));
    out.push_back(path);
    return out;
}

} // namespace

extern "C" int demo_check_intern(void)
{
    Interner interner;
    Trie trie;
    for (const std::string_view path : {"src/net/stream.rs", "src/net/link.rs", "src/store/blobs.rs", "src/net/stream.rs"})
        for (const auto part : paths_of(path))
            trie.insert(part, interner.symbol(part));
    CHECK(interner.size() == 6 && interner.symbol("src/net") == interner.symbol(std::string("src/") + "net"));
    CHECK(interner.word(interner.symbol("src/store")) == "src/store" && interner.size() == 6);
    CHECK(trie.beginning_with("src/net").size() == 3 && trie.beginning_with("src/x").empty());
    CHECK(trie.beginning_with("").size() == 6);
    std::vector<Symbol> many;
    for (int i = 0; i < 1000; ++i)
        many.push_back(interner.symbol("header" + std::to_string(i) + ".h"));
    for (int i = 0; i < 1000; ++i)
        CHECK(interner.word(many[static_cast<std::size_t>(i)]) == "header" + std::to_string(i) + ".h");
    return 0;
}
