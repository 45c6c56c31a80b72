#include "parser.hpp"

#include "check.h"

#include <map>
#include <sstream>

namespace demo {

namespace {

template <typename Node>
ExpressionPtr make(Node node)
{
    return std::make_unique<const Expression>(Expression{std::move(node)});
}

class Parser {
public:
    explicit Parser(std::string_view source) : tokens_(tokens_of(source)) {}

    ExpressionPtr whole()
    {
        auto out = binary(1);
        if (now().kind != TokenKind::End)
            fail("an operator");
        return out;
    }

private:
    const Token &now() const { return tokens_[at_]; }

    bool accept(std::string_view sign)
    {
        const bool is = now().kind == TokenKind::Sign && now().text == sign;
        at_ += is;
        return is;
    }

    void expect(std::string_view sign)
    {
        if (!accept(sign))
            fail(std::string(sign));
    }

    [[noreturn]] void fail(const std::string &wanted) const { throw SyntaxError("expected " + wanted, now().column); }

    static int precedence(const Token &token)
    {
        static const std::map<std::string_view, int> levels = {
            {"&&", 1}, {"==", 2}, {"!=", 2}, {"<", 3}, {"<=", 3}, {">", 3}, {">=", 3}, {"+", 4}, {"-", 4}, {"*", 5}, {"/", 5}};
        const auto found = token.kind == TokenKind::Sign ? levels.find(token.text) : levels.end();
        return found == levels.end() ? 0 : found->second;
    }

    // Precedence climbing: operators of at least this level, grouped from the left.
    ExpressionPtr binary(int level)
    {
        auto left = unary();
        for (int own = precedence(now()); own >= level; own = precedence(now())) {
            const std::string sign(tokens_[at_++].text);
            left = make(Binary{sign, std::move(left), binary(own + 1)});
        }
        return left;
    }

    ExpressionPtr unary() { return accept("-") ? make(Negation{unary()}) : primary(); }

    ExpressionPtr primary()
    {
        const Token token = now();
        if (accept("(")) {
            auto inside = binary(1);
            expect(")");
            return inside;
        }
        ++at_;
        if (token.kind == TokenKind::Number)
            return make(Number{std::stod(std::string(token.text))});
        if (token.kind == TokenKind::Name)
            return accept("(") ? call(std::string(token.text)) : make(Variable{std::string(token.text)});
        --at_;
        fail("a value");
    }

    ExpressionPtr call(std::string name)
    {
        std::vector<ExpressionPtr> arguments;
        if (accept(")"))
            return make(Call{std::move(name), std::move(arguments)});
        do
            arguments.push_back(binary(1));
        while (accept(","));
        expect(")");
        return make(Call{std::move(name), std::move(arguments)});
    }

    std::vector<Token> tokens_;
    std::size_t at_ = 0;
};

struct Writer {
    std::ostringstream &out;

    void operator()(const Number &n) { out << n.value; }
    void operator()(const Variable &v) { out << v.name; }
    void operator()(const Negation &n)
    {
        out << "(-";
        std::visit(*this, n.operand->node);
        out << ')';
    }
    void operator()(const Binary &b)
    {
        out << '(';
        std::visit(*this, b.left->node);
        out << ' ' << b.sign << ' ';
        std::visit(*this, b.right->node);
        out << ')';
    }
    void operator()(const Call &c)
    {
        out << c.name << '(';
        for (std::size_t i = 0; i < c.arguments.size(); ++i) {
            out << (i > 0 ? ", " : "");
            std::visit(*this, c.arguments[i]->node);
        }
        out << ')';
    }
};

} // namespace

ExpressionPtr parse(std::string_view source)
{
    return Parser(source).whole();
}

std::string with_brackets(const Expression &expression)
{
    std::ostringstream out;
    std::visit(Writer{out}, expression.node);
    return out.str();
}

} // namespace demo

extern "C" int demo_check_parser(void)
{
    const std::map<std::string, std::string> good = {{"1+2*3-4", "((1 + (2 * 3)) - 4)"}, {"-(a-b)/-c", "((-(a - b)) / (-c))"},
                                                     {"f()+max(1,x<2)", "(f() + max(1, (x < 2)))"}, {"a==b && c<=d+1", "((a == b) && (c <= (d + 1)))"}};
    for (const auto &[source, wanted] : good)
        CHECK(demo::with_brackets(*demo::parse(source)) == wanted);
    for (const char *source : {"", "1 +", "(1", "f(1,", "1 2", "a = b", ")"}) {
        try {
            demo::parse(source);
            return __LINE__;
        } catch (const demo::SyntaxError &error) {
            CHECK(std::string(error.what()).find("expected ") == 0);
        }
    }
    return 0;
}
