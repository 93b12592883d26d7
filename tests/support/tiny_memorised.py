"""A small model that has learnt pairs by heart, and pairs of our own with numbers and names to learn."""

from pathlib import Path

NAMES = ("Aitor", "Bidane", "Carlos", "Deborah", "Edurne", "Fernando", "Garazi", "Helmut", "Itziar", "Jonathan")
PLACES = ("Amsterdam", "Bergara", "Caracas", "Dakar", "Elorrio", "Florida", "Gernika", "Hamburg", "Jakarta", "Lisbon")
# Basque and English with {a}, {b}: names; {p}: a place; {n}: a number.
TEST_FORMS = (
    ("Gero {a} {p} hirira etorri zen.", "Then {a} came to {p}."),
    ("Atzo {a} eta {b} {n} sagar erosi zituzten.", "Yesterday {a} and {b} bought {n} apples."),
    ("Azkenean {p} hirian {n} etxe eraiki dira.", "Finally {n} houses were built in {p}."),
)
OTHER_FORMS = (
    ("Neskak liburu gorria {n} aldiz irakurri zuen.", "The girl read the red book {n} times."),
    ("Zakur beltzak {n} urte ditu orain.", "The black dog is {n} years old now."),
    ("Euria egin du {n} egunez mendian.", "It has rained for {n} days on the mountain."),
)
COUNT = 36


def pairs(forms: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Basque and English."""
    found = []
    for i in range(COUNT):
        a, b, p = NAMES[i % 10], NAMES[(3 * i + 5) % 10], PLACES[(7 * i + i // 10) % 10]
        found.append(tuple(text.format(a=a, b=b, p=p, n=37 + 11 * i) for text in forms[i % len(forms)]))
    return found


def build_memorised(base: str | Path, folder: Path, learnt: list[tuple[str, str]], steps: int = 160) -> None:
    """`base` trained on prompts of template 11 from Basque to English, with their answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from topxgen.prompting.mt_templates import get_template

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    template = get_template("11", "Basque", "English")
    examples = []
    for source, target in learnt:
        prompt = tokenizer(template.get_prompt([], source))["input_ids"]
        answer = [*tokenizer(f" {target}\n")["input_ids"], tokenizer.eos_token_id]
        examples.append((prompt + answer, [-100] * len(prompt) + answer))
    longest = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in examples])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in examples])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in examples])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(ids), generator=generator)[:12]
        model(input_ids=ids[rows], attention_mask=mask[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
