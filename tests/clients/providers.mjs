// The stock Node SDKs of providers, with only base URL and key changed: OpenAI's and Vercel's.
// argv[2]: {"base", "token", "poor"} as JSON. Prints what each call gave, as JSON.
import {createOpenAI} from '@ai-sdk/openai';
import {APICallError, embed, generateText, jsonSchema, stepCountIs, streamText, tool} from 'ai';
import OpenAI from 'openai';

const {base, token, poor} = JSON.parse(process.argv[2]);
const hello = [{role: 'user', content: 'hello'}];
const weather = [{role: 'user', content: 'weather'}];
const model = 'gpt-4o-mini';
const parameters = {
  type: 'object', properties: {city: {type: 'string'}}, required: ['city'], additionalProperties: false,
};
const said = {};

async function refused(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error('it was not refused');
}

async function useOpenAI() {
  const client = new OpenAI({baseURL: base, apiKey: token});
  const chat = client.chat.completions;
  const whole = await chat.create({model, messages: hello});
  said.openai_whole = [whole.choices[0].message.content, whole.usage.total_tokens];
  let text = '', usages = 0, bare = 0;
  for await (const chunk of await chat.create({model, messages: hello, stream: true})) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usages += chunk.usage ? 1 : 0;
    bare += chunk.choices.length === 0 ? 1 : 0;
  }
  said.openai_stream = [text, usages, bare];
  let counted = 0;
  const asked = {model, messages: hello, stream: true, stream_options: {include_usage: true}};
  for await (const chunk of await chat.create(asked)) counted += chunk.usage?.total_tokens ?? 0;
  said.openai_counted = counted;
  const tools = [{type: 'function', function: {name: 'get_weather', parameters}}];
  const called = await chat.create({model, messages: weather, tools});
  said.openai_tool = called.choices[0].message.tool_calls[0].function;
  said.openai_response = (await client.responses.create({model, input: 'hello'})).output_text;
  const vector = await client.embeddings.create({
    model: 'text-embedding-3-small', input: 'hello', encoding_format: 'float',
  });
  said.openai_embedding = vector.data[0].embedding.length;
  const without = new OpenAI({baseURL: base, apiKey: poor});
  const error = await refused(() => without.chat.completions.create({model, messages: hello}));
  said.openai_refused = [error instanceof OpenAI.APIError, error.status, error.code];
  const streamed = await refused(
    () => without.chat.completions.create({model, messages: hello, stream: true}));
  said.openai_refused_stream = [streamed instanceof OpenAI.APIError, streamed.status, streamed.code];
}

async function useVercel() {
  const provider = createOpenAI({baseURL: base, apiKey: token});
  const whole = await generateText({model: provider.chat(model), prompt: 'hello'});
  said.ai_whole = [whole.text, whole.usage.totalTokens];
  const streaming = streamText({model: provider.chat(model), prompt: 'hello'});
  let text = '';
  for await (const part of streaming.textStream) text += part;
  said.ai_stream = [text, (await streaming.usage).totalTokens];
  const called = await generateText({
    model: provider.chat(model), prompt: 'weather', stopWhen: stepCountIs(1),
    tools: {get_weather: tool({inputSchema: jsonSchema(parameters), execute: () => 'cold'})},
  });
  said.ai_tool = called.toolCalls[0].input;
  said.ai_response = (await generateText({model: provider.responses(model), prompt: 'hello'})).text;
  const vector = await embed({
    model: provider.textEmbeddingModel('text-embedding-3-small'), value: 'hello',
  });
  said.ai_embedding = vector.embedding.length;
  const without = createOpenAI({baseURL: base, apiKey: poor});
  const error = await refused(
    () => generateText({model: without.chat(model), prompt: 'hello'}));
  said.ai_refused = [APICallError.isInstance(error), error.statusCode, error.isRetryable];
}

await useOpenAI();
await useVercel();
process.stdout.write(JSON.stringify(said));
