"""Thoughts of reasoning models are found by their marks, whatever family writes them, and nothing else is cut."""

import pytest

from topxgen.text.thoughts import begun_in, is_mark, without_thoughts


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nHm.\n</think>\n\nKaixo.",  # DeepSeek R1, Qwen 3
        "Hm.\n</think>\n\nKaixo.",  # the chat template began it
        "<thinking>Hm <reflection>no</reflection> yes</thinking>Kaixo.",
        "<Thought>\nHm.\n</Thought>\n<Output>\nKaixo.\n</Output>",  # Marco-o1
        "<reasoning>Hm.</reasoning>\n<answer>Kaixo.</answer>",
        "<reflection>Hm.</reflection>Kaixo.",
        "<seed:think>Hm.</seed:think>Kaixo.",
        "[THINK]Hm.\nHm.[/THINK]Kaixo.",  # Magistral
        "◁think▷Hm.◁/think▷Kaixo.",  # Kimi
        "<|begin_of_thought|>Hm<|end_of_thought|>\n<|begin_of_solution|>Kaixo.<|end_of_solution|>",
        "<|START_THINKING|>Hm<|END_THINKING|><|START_RESPONSE|>Kaixo.<|END_RESPONSE|>",  # Command A
        "<|channel>thought\nHm.<channel|>Kaixo.",  # Gemma 4
        "<unused94>thought\nHm.<unused95>Kaixo.",  # MedGemma
        "Here is my thought process: Hm.\n\nHere is my response:\nKaixo.",  # Granite
        "Here's my thought process: Hm.\n\nHere's my response:\nKaixo.",
        "<longcat_think>\nHm.\n</longcat_think>\nKaixo.",
        "<think:6124c78e>Hm.</think:6124c78e>Kaixo.",  # Hunyuan 4
        "<ifm|think_faster>Hm.</ifm|think_faster>Kaixo.",  # K2 Horizon
        "<|plamo:begin_think:plamo|>Hm.<|plamo:end_think:plamo|>Kaixo.",  # PLaMo 3
        "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>Kaixo.<|close|>response<|sep|>",  # Kimi K3
        "Hm.<|close|> think <|sep|><|open|> response <|sep|>Kaixo.",
        "<|content_thinking|>Hm.<|end_message|><|message_model|><|content_text|>Kaixo.",  # Inkling
        "to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Kaixo.",  # Muse Glimmer
        "[unused16]Hm.[unused17]Kaixo.",  # openPangu
        "<inner_monologue>Hm.</inner_monologue><final_translation>Kaixo.</final_translation>",
        "<SUMMARY>Hm.</SUMMARY>\n<REASONING>Hm.</REASONING>\n<CONCLUSION>Kaixo.</CONCLUSION>",  # LLaVA-CoT
        "< think >Hm.</ think >Kaixo.",
        "<思考>Hm.</思考>Kaixo.",
        "<think>Hm.</think><|begin_of_box|>Kaixo.<|end_of_box|>",  # GLM 4.5V
        "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\nKaixo.\n[END FINAL RESPONSE]",  # Apriel
        "<|im_start|>think\nHm.\n<|im_start|>answer\nKaixo.",  # s1
        "<|think|>Hm.<|end|><|begin|>assistant<|content|>Kaixo.",  # Solar Open
        "<|think|>Hm.assistant<|content|>Kaixo.",
        "<|im_start|>assistant/think\nHm.<|im_end|>\n<|im_start|>assistant\nKaixo.",  # HyperCLOVA X
        "<|thought_start|>Hm<|thought_end|>Kaixo.",
        "<｜begin▁of▁thought｜>Hm<｜end▁of▁thought｜>Kaixo.",
        '<details type="reasoning">\n<summary>Thought for 5 seconds</summary>\n> Hm\n</details>\nKaixo.',
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Kaixo.<|return|>",
        "<|channel|>analysis<|message|>final<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>Kaixo.",
        "Hm.<|end|><|start|>assistant<|channel|>final<|message|>Kaixo.",
        "<|channel|>final<|message|>Draft.<|end|><|start|>assistant<|channel|>final<|message|>Kaixo.",
        "analysisHm: assistantfinal is next.assistantfinalKaixo.",  # gpt-oss without special tokens
        "analysishm.assistantcommentaryhm.assistantfinalKaixo.",
        "analysis\nHm.\nassistantfinal\nKaixo.",
        "finalKaixo.",
        "<think>a</think> draft <think>b</think> Kaixo.",
        "<think>a</think> b </think>\nKaixo.",
        "<think>I could write <think> first.</think>Kaixo.",
        "Sure! <think>Hm.</think>Kaixo.",
        "Kaixo.\n<think>Was that right?</think>",
        "Kaixo.\n<think>Was that right?",
    ],
)
def test_what_follows_thoughts(text):
    assert without_thoughts(text) == "Kaixo."


@pytest.mark.parametrize(
    "text",
    [
        "<think>It says hello",
        "<thinking>a<reflection>b</reflection>so it is",
        "[THINK]Okay",
        "<longcat_think>\nOkay",
        "Here are my reasoning steps:\nHm.",
        "<|im_start|>assistant/think\nHm.",
        "◁think▷Okay",
        "<think:6124c78e>Okay",
        "<ifm|think>\nOkay",
        "<|plamo:begin_think:plamo|>Okay",
        "<|open|>think<|sep|>Okay",
        "<|content_thinking|>Okay",
        "to=self<|message|>Okay",
        "[unused16]Okay",
        "Here's my thought process: Hm.",
        "<|channel|>analysis<|message|>The user",
        "<|channel|>ana",
        "analysisThe user wants Basque.",
        "<|START_THINKING|>a",
        "<think>a</think>",
        "Hi\n<think>a</think>draft</think>",
    ],
)
def test_thoughts_without_an_end_leave_nothing(text):
    assert without_thoughts(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "analysis of the data",
        "analysis, final and assistant are words.",
        "final answers are final.",
        "finally it ends.",
        "The assistantfinal word stays.",
        "I think </b> and <i>think</i>.",
        "Use the <think> tag.",
        "Between <details> and </details> it is hidden.",
        "Here are my reasoning steps: one and two.",
        "[Reflection] on a thought",
        "It says: a < b and think > 3",
        "Mail went to=self once.",
    ],
)
def test_words_alone_are_no_marks(text):
    assert without_thoughts(text) == text


def test_a_prompt_that_begins_thoughts():
    assert begun_in("<|Assistant|><think>\n") == "<think>" == begun_in("Basque: <think>")
    assert begun_in("<think>\n\n</think>\n\n") == "" == begun_in("Write <think> first. <|assistant|>")
    harmony = "<|start|>assistant<|channel|>analysis<|message|>"
    assert without_thoughts(begun_in(harmony) + "Hm.") == "" and begun_in("<|channel|>final<|message|>") == ""


def test_special_tokens_that_are_marks():
    assert all(
        map(
            is_mark,
            (
                "[THINK]",
                "[/THINK]",
                "<|channel|>",
                "<|message|>",
                "<channel|>",
                "◁/think▷",
                "<|open|>",
                "<|content_text|>",
            ),
        )
    )
    assert not any(map(is_mark, ("</s>", "<|end|>", "<|im_end|>", "<eos>", "[INST]")))
